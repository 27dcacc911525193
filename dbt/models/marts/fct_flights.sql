select
    schedule.flight_id,
    schedule.flight_date,
    schedule.scheduled_departure,
    schedule.carrier,
    schedule.flight_number,
    coalesce(actuals.tail_number, schedule.tail_number) as tail_number,
    schedule.origin,
    schedule.destination,
    schedule.distance_miles,
    schedule.scheduled_departure_time,
    schedule.scheduled_arrival_time,
    actuals.departure_time,
    actuals.departure_delay_minutes,
    actuals.arrival_time,
    actuals.arrival_delay_minutes,
    actuals.air_time_minutes,
    actuals.flight_date is not null as is_reported,
    actuals.is_cancelled,
    actuals.is_diverted,
    actuals.is_late,
    weather.temperature_f,
    weather.dew_point_f,
    weather.humidity_percent,
    weather.wind_direction_degrees,
    weather.wind_speed_mph,
    weather.wind_gust_mph,
    weather.precipitation_inches,
    weather.pressure_millibars,
    weather.visibility_miles
from {{ ref('stg_flight_schedule') }} as schedule
left join {{ ref('stg_flight_actuals') }} as actuals
    on schedule.flight_date = actuals.flight_date
    and schedule.carrier = actuals.carrier
    and schedule.flight_number = actuals.flight_number
    and schedule.scheduled_departure = actuals.scheduled_departure
left join {{ ref('stg_weather') }} as weather
    on schedule.flight_date = weather.observation_date
    and schedule.origin = weather.origin
    and date_trunc('hour', schedule.scheduled_departure) = weather.observed_at
where {{ outcome_days('schedule.flight_date') }}
