{#-
    Everything here is known on the morning of the flight's day: the schedule of the day, and outcomes, weather
    and fleet up to the day before. Outcomes are first counted per day, then summed over the trailing windows.
-#}
{% set members = {
    'carrier': 'carrier',
    'origin': 'origin',
    'route': 'route',
    'tail': 'tail_number',
} %}
{% set windows = [1, 7, trailing_days()] %}
{% set members_of_flight %}
    lateral view inline(array(
        {%- for dimension, member in members.items() %}
        named_struct('dimension', '{{ dimension }}', 'member', {{ member }}){{ ',' if not loop.last }}
        {%- endfor %}
    )) as dimension, member
{% endset %}

with flights as (
    select *, concat(origin, '-', destination) as route
    from {{ ref('stg_flight_schedule') }}
    where {{ feature_days('flight_date') }}
),

arrivals as (
    select *, concat(origin, '-', destination) as route
    from {{ ref('stg_flight_actuals') }}
    where arrival_delay_minutes is not null
        and flight_date >= {{ interval_day('DBT_INTERVAL_START', -trailing_days()) }}
        and flight_date < {{ interval_day('DBT_INTERVAL_END', trailing_days()) }}
),

daily as (
    select
        dimension,
        member,
        flight_date,
        count(*) as flights,
        count_if(is_late) as late_flights
    from arrivals
    {{ members_of_flight }}
    where member is not null
    group by dimension, member, flight_date
),

trailing as (
    select
        flight_id,
        dimension,
        {%- for days in windows %}
        coalesce(sum(flights) over last_{{ days }}d, 0) as flights_{{ days }}d,
        sum(late_flights) over last_{{ days }}d as late_{{ days }}d{{ ',' if not loop.last }}
        {%- endfor %}
    from (
        select null as flight_id, * from daily
        union all
        select flight_id, dimension, member, flight_date, 0L as flights, 0L as late_flights
        from flights
        {{ members_of_flight }}
        where member is not null
    )
    window
        {%- for days in windows %}
        last_{{ days }}d as (
            partition by dimension, member order by flight_date
            range between interval {{ days }} days preceding and interval 1 day preceding
        ){{ ',' if not loop.last }}
        {%- endfor %}
),

rates as (
    select
        flight_id,
        {%- for dimension in members %}
        {%- for days in windows %}
        max(flights_{{ days }}d) filter (where dimension = '{{ dimension }}') as {{ dimension }}_flights_{{ days }}d,
        max(case when flights_{{ days }}d > 0 then late_{{ days }}d / flights_{{ days }}d end)
            filter (where dimension = '{{ dimension }}') as {{ dimension }}_late_rate_{{ days }}d{{ ',' if not loop.last }}
        {%- endfor %}{{ ',' if not loop.last }}
        {%- endfor %}
    from trailing
    where flight_id is not null
    group by flight_id
),

weather as (
    select
        origin,
        date_add(observation_date, 1) as flight_date,
        {%- for measurement in [
            'temperature_f', 'humidity_percent', 'wind_speed_mph', 'pressure_millibars', 'visibility_miles'
        ] %}
        max_by({{ measurement }}, observed_at) filter (where {{ measurement }} is not null) as weather_{{ measurement }},
        {%- endfor %}
        {#- A sum of decimals does not depend on the order of its terms. #}
        cast(sum(cast(precipitation_inches as decimal(10, 4))) as double) as weather_precipitation_inches_24h
    from {{ ref('stg_weather') }}
    where observation_date >= {{ interval_day('DBT_INTERVAL_START', -1) }}
        and observation_date < {{ interval_day('DBT_INTERVAL_END', trailing_days()) }}
    group by origin, observation_date
),

calendar as (
    select
        flight_date,
        datediff(array_min(filter(holidays, day -> day >= flight_date)), flight_date) as days_to_holiday,
        datediff(flight_date, array_max(filter(holidays, day -> day <= flight_date))) as days_since_holiday
    from (select distinct flight_date, {{ us_holidays() }} as holidays from flights)
)

select
    flights.flight_id,
    flights.flight_date,
    flights.scheduled_departure,
    flights.carrier,
    flights.flight_number,
    flights.tail_number,
    flights.origin,
    flights.destination,
    flights.distance_miles,
    flights.scheduled_departure_time div 100 * 60 + flights.scheduled_departure_time % 100 as departure_minute_of_day,
    month(flights.flight_date) as month,
    weekday(flights.flight_date) + 1 as day_of_week,
    weekday(flights.flight_date) >= 5 as is_weekend,
    calendar.days_to_holiday = 0 as is_holiday,
    calendar.days_to_holiday,
    calendar.days_since_holiday,
    {%- for dimension in members %}
    {%- for days in windows %}
    coalesce(rates.{{ dimension }}_flights_{{ days }}d, 0) as {{ dimension }}_flights_{{ days }}d,
    rates.{{ dimension }}_late_rate_{{ days }}d,
    {%- endfor %}
    {%- endfor %}
    weather.weather_temperature_f,
    weather.weather_humidity_percent,
    weather.weather_wind_speed_mph,
    weather.weather_pressure_millibars,
    weather.weather_visibility_miles,
    weather.weather_precipitation_inches_24h,
    year(flights.flight_date) - planes.year_built as plane_age_years,
    planes.seats as plane_seats
from flights
join calendar on flights.flight_date = calendar.flight_date
join rates on flights.flight_id = rates.flight_id
left join weather
    on flights.origin = weather.origin
    and flights.flight_date = weather.flight_date
left join {{ ref('dim_planes') }} as planes
    on flights.tail_number = planes.tail_number
    and flights.flight_date > planes.valid_from
    and (planes.valid_to is null or flights.flight_date <= planes.valid_to)
