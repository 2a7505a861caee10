"""What every room uses: settings, command lines, safe files, masking of secrets, figure style."""
