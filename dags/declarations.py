"""No Airflow DAG: what is wrong with a contract or a ``model.yaml`` is shown as an import error of this file.

The other files leave such a source or model out, so that one mistake does not take all DAGs away.
"""

from lakehouse import contracts
from lakehouse.errors import LakeError
from lakehouse.ml import model_folders

if problems := [*contracts.problems().values(), *model_folders.problems().values()]:
    raise LakeError("\n".join(map(str, problems)))
