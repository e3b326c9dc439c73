"""A model over many pictures: rows of Parquet, in parts that are written whole and never twice; docs/batch.md."""
