"""From run directories to tables, figures and a report. pandas, scipy and matplotlib; no torch."""
