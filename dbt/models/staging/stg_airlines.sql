select
    carrier,
    name as carrier_name
from {{ source('bronze', 'airlines') }}
where _interval = (select max(_interval) from {{ source('bronze', 'airlines') }})
