select
    airport_code,
    name as airport_name,
    latitude,
    longitude,
    altitude_feet,
    utc_offset_hours,
    dst,
    timezone
from {{ source('bronze', 'airports') }}
where _interval = (select max(_interval) from {{ source('bronze', 'airports') }})
