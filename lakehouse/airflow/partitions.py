"""Intervals as Airflow's partition keys: the timetables, and the mapper between the stages.

Both run inside the scheduler and the API server, where a key that is not an interval is refused with status 400, and so
is a run by hand without one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.exceptions import InvalidPartitionKeyError
from airflow.partition_mappers.base import PartitionMapper
from airflow.serialization.encoders import ensure_serialized_asset
from airflow.timetables.base import DagRunInfo, Timetable
from airflow.timetables.simple import NullTimetable, PartitionedAssetTimetable
from airflow.timetables.trigger import CronPartitionTimetable

from lakehouse.interval import Interval, InvalidIntervalError

if TYPE_CHECKING:
    from pendulum import DateTime

KEY_FORMAT = "%Y-%m-%d"


class _KeyNeeded(Timetable):
    """Refuses a run by hand that does not say what it is about."""

    def resolve_partition_date(self, partition_key: str | None) -> dt.datetime | None:
        """The day of a key; asked when a run is started by hand.

        Args:
            partition_key: What the run is about.

        Raises:
            InvalidPartitionKeyError: There is none, or it is not an interval.
        """
        if partition_key is None:
            raise InvalidPartitionKeyError(
                "The run needs a partition key, the day (2013-03-01) or range of days (2013-01-01/2013-02-28) that it "
                "is about."
            )
        return super().resolve_partition_date(partition_key)


class IntervalTimetable(_KeyNeeded, CronPartitionTimetable):
    """One run for each day that a source delivers; runs by hand take a range of days as well.

    The cron expression says when a run starts. Whatever its hour, the partition is a whole day, so that runs by
    schedule, by hand and by backfill for the same day carry the same partition date.
    """

    def __init__(self, cron: str, *, timezone: Any = "UTC", run_offset: int = 0, **options: Any) -> None:
        """Set the time of day and the distance between the run and its data.

        Args:
            cron: When a run starts.
            timezone: Time zone of the cron expression.
            run_offset: Days from the day of the run to the day that its data is about; -1 is the day before.
            options: The other arguments of ``CronPartitionTimetable``.
        """
        super().__init__(cron, timezone=timezone, run_offset=run_offset, **options | {"key_format": KEY_FORMAT})

    def _get_partition_date(self, *, run_date: Any) -> DateTime:
        day = pendulum.instance(run_date).in_timezone(self._timezone).date()
        return self._midnight(day + dt.timedelta(days=self._run_offset))

    def iter_partition_dagrun_infos(self, *, earliest: dt.datetime, latest: dt.datetime) -> Iterable[DagRunInfo]:
        """One run for each day of a backfill; both ends are included.

        Args:
            earliest: First day.
            latest: Last day.
        """
        for day in Interval(earliest.date(), latest.date()).days():
            date = self._midnight(day)
            yield DagRunInfo(run_after=date, data_interval=None, partition_date=date, partition_key=day.isoformat())

    def _decode_partition_date(self, partition_key: str) -> DateTime | None:  # type: ignore[override]
        # A range has no date: a backfill of its first day must not take the range for that day.
        interval = parse_key(partition_key)
        return self._midnight(interval.start) if interval.is_day else None

    def _midnight(self, day: dt.date) -> DateTime:
        return pendulum.datetime(day.year, day.month, day.day, tz=self._timezone).in_timezone("UTC")


class IntervalAssetTimetable(_KeyNeeded, PartitionedAssetTimetable):
    """A run for each interval that the stages before have released; by hand for any."""

    def __init__(
        self, *, assets: Any, partition_mapper_config: Mapping[Any, PartitionMapper] | None = None, **options: Any
    ) -> None:
        """Set what is waited for.

        Args:
            assets: What has to be released, in the words of a DAG file or in those of the scheduler.
            partition_mapper_config: Asset to the mapper of its intervals.
            options: The other arguments of ``PartitionedAssetTimetable``.
        """
        mappers = {ensure_serialized_asset(asset): mapper for asset, mapper in (partition_mapper_config or {}).items()}
        super().__init__(assets=assets, partition_mapper_config=mappers, **options)


class ManualTimetable(_KeyNeeded, NullTimetable):
    """Runs by hand alone, each for the interval that is its partition key."""

    description = "Never, the interval is given by hand"
    partitioned = True

    def _decode_partition_date(self, partition_key: str) -> dt.datetime | None:
        interval = parse_key(partition_key)
        return dt.datetime.combine(interval.start, dt.time(), dt.UTC) if interval.is_day else None


class IntervalMapper(PartitionMapper):
    """Tells which intervals of a later stage a new interval of an asset belongs to.

    A later stage for a day may need the data about an earlier one: what is known on the morning of 2 March is what
    happened on 1 March. A range belongs to the same range, and to the days that follow it.
    """

    def __init__(self, lag_days: int = 0, *, ranges: bool = True, max_downstream_keys: int | None = None) -> None:
        """Set the distance.

        Args:
            lag_days: Days from the data's day to the day that it belongs to downstream.
            ranges: Whether a range leads to anything; the stages after a bulk load of history need not follow it.
            max_downstream_keys: Airflow's limit to the keys that one event may lead to.
        """
        super().__init__(max_downstream_keys=max_downstream_keys)
        self.lag_days = lag_days
        self.ranges = ranges

    def to_downstream(self, key: str) -> str | list[str]:
        """The partition keys downstream.

        Args:
            key: Partition key of the asset's event.
        """
        interval = parse_key(key)
        if not (interval.is_day or self.ranges):
            return []
        later = [
            (interval.end + dt.timedelta(days=day)).isoformat()
            for day in range(self.lag_days if interval.is_day else 1, self.lag_days + 1)
        ]
        keys = later if interval.is_day else [key, *later]
        return keys[0] if len(keys) == 1 else keys

    def to_partition_date(self, downstream_key: str) -> dt.datetime | None:
        """The day of a key; a range has none.

        Args:
            downstream_key: Partition key of the later stage.
        """
        interval = parse_key(downstream_key)
        return dt.datetime.combine(interval.start, dt.time(), dt.UTC) if interval.is_day else None

    def serialize(self) -> dict[str, Any]:
        """What the scheduler stores."""
        return {**super().serialize(), "lag_days": self.lag_days, "ranges": self.ranges}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> IntervalMapper:
        """Inverse of :meth:`serialize`.

        Args:
            data: What was stored.
        """
        limit = data.get("max_downstream_keys")
        return cls(data["lag_days"], ranges=data.get("ranges", True), max_downstream_keys=limit)


def parse_key(key: str) -> Interval:
    """The interval that a partition key stands for.

    Args:
        key: Such as ``2013-03-01`` or ``2013-01-01/2013-02-28``.

    Raises:
        InvalidPartitionKeyError: It is not an interval, or not written in its one form: two spellings of a day
            would be two partitions.
    """
    try:
        interval = Interval.parse(key)
    except InvalidIntervalError as error:
        raise InvalidPartitionKeyError(f"Wrong partition key: {error}") from error
    if str(interval) != key:
        raise InvalidPartitionKeyError(f"Wrong partition key: write {key!r} as {str(interval)!r}.")
    return interval
