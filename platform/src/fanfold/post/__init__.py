"""Posts: photos with a caption, author timelines, tags."""
