"""The face of topology: processes of many modules on one machine, kept running and replaceable one by one."""

from quickcomm.topology.adapters.desired import DesiredProcesses
from quickcomm.topology.adapters.probes import HttpProbe
from quickcomm.topology.adapters.processes import Identity, RecordedProcesses
from quickcomm.topology.adapters.supervisord import Supervisord, SupervisorError
from quickcomm.topology.adapters.tail import Tail
from quickcomm.topology.model.backoff import Backoff
from quickcomm.topology.model.program import Module, Program, ScaleError, UnknownModuleError
from quickcomm.topology.ports import Balancer, Probe
from quickcomm.topology.service.fleet import Fleet, NotReadyError
from quickcomm.topology.service.keeper import Keeper, Tools

__all__ = [
    "Backoff",
    "Balancer",
    "DesiredProcesses",
    "Fleet",
    "HttpProbe",
    "Identity",
    "Keeper",
    "Module",
    "NotReadyError",
    "Probe",
    "Program",
    "RecordedProcesses",
    "ScaleError",
    "SupervisorError",
    "Supervisord",
    "Tail",
    "Tools",
    "UnknownModuleError",
]
