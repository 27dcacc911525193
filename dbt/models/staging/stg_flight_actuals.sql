select
    flight_date,
    scheduled_departure,
    carrier,
    flight_number,
    tail_number,
    origin,
    destination,
    departure_time,
    departure_delay_minutes,
    arrival_time,
    arrival_delay_minutes,
    air_time_minutes,
    departure_time is null as is_cancelled,
    departure_time is not null and arrival_delay_minutes is null as is_diverted,
    {{ is_late('arrival_delay_minutes') }} as is_late
from {{ source('bronze', 'flight_actuals') }}
