"""What an analysis writes: results.json, figures, report.html."""
