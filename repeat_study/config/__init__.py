"""Study files and the specs that they declare: runs, parents, resources and model sizes."""
