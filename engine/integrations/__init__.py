"""infold inside what people use already."""
