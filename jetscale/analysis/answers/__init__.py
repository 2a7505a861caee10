"""What fitted laws are asked for: allocations, gains over scratch, learning rates."""
