"""pyarrow: Parquet files and partitioned data sets, and streams of many megabytes."""

import os
from pathlib import Path

import pyarrow as arrow
import pyarrow.dataset as datasets
import pyarrow.parquet as parquet
from pyarrow.fs import FileSelector, FileType, LocalFileSystem, copy_files
from settings import files

ROWS = 200_000

files.create_dir("arrow-box")
table = arrow.table(
    {
        "number": list(range(ROWS)),
        "text": [os.urandom(24).hex() for _ in range(ROWS)],
        "third": [at % 3 for at in range(ROWS)],
    }
)
parquet.write_table(table, "arrow-box/one.parquet", filesystem=files, compression="none")
assert files.get_file_info("arrow-box/one.parquet").size > 10_000_000, "more than one part"
assert parquet.read_table("arrow-box/one.parquet", filesystem=files).equals(table)
numbers = parquet.read_table("arrow-box/one.parquet", filesystem=files, columns=["number"])
assert numbers["number"].to_pylist() == list(range(ROWS)), "ranges of it"

datasets.write_dataset(table, "arrow-box/set", format="parquet", filesystem=files, partitioning=["third"])
found = datasets.dataset("arrow-box/set", filesystem=files, format="parquet", partitioning=["third"])
assert found.count_rows(filter=datasets.field("third") == 1) == len(range(1, ROWS, 3))

files.copy_file("arrow-box/one.parquet", "arrow-box/copy")
files.move("arrow-box/copy", "arrow-box/moved")
assert files.get_file_info("arrow-box/copy").type == FileType.NotFound
assert parquet.read_table("arrow-box/moved", filesystem=files).equals(table)

local = LocalFileSystem()
copy_files(
    str(Path("up").absolute()), "arrow-box/tree", source_filesystem=local, destination_filesystem=files
)
Path("down").mkdir()
copy_files(
    "arrow-box/tree", str(Path("down").absolute()), source_filesystem=files, destination_filesystem=local
)

assert files.get_file_info(FileSelector("arrow-box", recursive=True))
files.delete_dir_contents("arrow-box")
files.delete_dir("arrow-box")
assert files.get_file_info("arrow-box").type == FileType.NotFound
