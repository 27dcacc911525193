select
    station,
    observation_date,
    precipitation_mm,
    highest_temperature_c,
    lowest_temperature_c,
    wind_speed_mps,
    weather
from {{ source('bronze', 'seattle_weather') }}
