"""Files that hold many photos: tar shards, parquet files and zips."""
