"""Small models that tests share."""
