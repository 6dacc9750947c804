"""Operations that span modules: defined once; steps of one database are one transaction, the others are durable.

`definition` what an operation is · `progress` how one stands, and what comes next (pure) · `keys` what a module
remembers beside an effect · `answering` handlers of steps that are transactions · `running` the next turn of an
operation, with retries · `executors` from the first turn to the last: in one transaction, or durable on DBOS.
"""

from quickcomm.kernel.saga.answering import Compensating, Transaction, Transactional
from quickcomm.kernel.saga.definition import Given, Operation, Step, digest
from quickcomm.kernel.saga.keys import CompensatedError
from quickcomm.kernel.saga.progress import Progress

__all__ = [
    "CompensatedError",
    "Compensating",
    "Given",
    "Operation",
    "Progress",
    "Step",
    "Transaction",
    "Transactional",
    "digest",
]
