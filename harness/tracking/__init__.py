"""MLflow, a view of the run directories: losing its database costs one `sync`. Training never imports it.

local.py     run directories as MLflow wants them
store.py     the store: an SQLite file, a database or a server, or one line on what is wrong with it
send.py      what it lacks of the run directories
attach.py    data sets, encoders and claims, for its pages
mirror.py    what it holds, kept on the disk and brought up to date
tables.py    that as a table
"""

from harness.tracking.local import LocalRun, flatten, read_curve
from harness.tracking.send import Counts, sync
from harness.tracking.store import default_uri, where_to_look
from harness.tracking.tables import table

__all__ = ["Counts", "LocalRun", "default_uri", "flatten", "read_curve", "sync", "table", "where_to_look"]
