{#- A row of a day is made from the observations of earlier days alone. -#}
with observed as (
    select
        station,
        date_add(observation_date, 1) as day,
        precipitation_mm as precipitation_mm_1d,
        highest_temperature_c as highest_temperature_c_1d,
        lowest_temperature_c as lowest_temperature_c_1d,
        wind_speed_mps as wind_speed_mps_1d,
        weather as weather_1d,
        avg(if(precipitation_mm > 0, 1.0d, 0.0d)) over (
            partition by station order by observation_date range between interval 6 days preceding and current row
        ) as rain_rate_7d
    from {{ ref('stg_seattle_weather') }}
    where observation_date >= {{ interval_day('DBT_INTERVAL_START', -7) }}
        and observation_date < {{ interval_day('DBT_INTERVAL_END', trailing_days()) }}
)

select
    *,
    cos(2 * pi() * dayofyear(day) / 366) as season
from observed
where {{ feature_days('day') }}
