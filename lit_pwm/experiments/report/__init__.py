"""The report of an experiment: a page built from sections, to which an experiment adds its own."""

from lit_pwm.experiments.report.curves import PolicyCurvesSection, WorldModelCurvesSection
from lit_pwm.experiments.report.page import Page, Section, build_report
from lit_pwm.experiments.report.predictions import OpenLoopPanel, OpenLoopSection
from lit_pwm.experiments.report.reliability import ReliabilitySection
from lit_pwm.experiments.report.returns import (
    COLUMNS,
    Column,
    ResultsRow,
    ResultsSection,
    results_table,
)
from lit_pwm.experiments.report.run_record import RunRecordSection
from lit_pwm.experiments.report.tables import Table
from lit_pwm.experiments.report.videos import VideosSection
from lit_pwm.experiments.report.wall_clock import StagesSection, duration

__all__ = [
    "COLUMNS",
    "Column",
    "OpenLoopPanel",
    "OpenLoopSection",
    "Page",
    "PolicyCurvesSection",
    "ReliabilitySection",
    "ResultsRow",
    "ResultsSection",
    "RunRecordSection",
    "Section",
    "StagesSection",
    "Table",
    "VideosSection",
    "WorldModelCurvesSection",
    "build_report",
    "duration",
    "results_table",
]
