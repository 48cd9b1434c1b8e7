"""Write a study's report from its run directories."""
