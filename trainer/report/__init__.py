"""What a person looks at after a run: plots, pictures, a summary."""
