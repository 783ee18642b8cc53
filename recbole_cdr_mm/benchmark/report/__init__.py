"""From a benchmark's results to a page, Markdown, LaTeX, CSV and figures."""
