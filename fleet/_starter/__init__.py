"""What `fleet init` makes a project from: links to this repository's own project."""
