{#- Identifies a scheduled flight for people: 2013-01-01_UA_1545_EWR_0515 (the time is that of the local clock). -#}
{% macro flight_id() -%}
    concat_ws('_', cast(flight_date as string), carrier, cast(flight_number as string), origin,
        lpad(cast(scheduled_departure_time as string), 4, '0'))
{%- endmacro %}


{#- Whether a flight arrived late; null when it has no arrival delay (not reported yet, cancelled or diverted). -#}
{% macro is_late(arrival_delay_minutes) -%}
    {{ arrival_delay_minutes }} > {{ var('late_minutes') }}
{%- endmacro %}


{#-
    Counts and delays of a group of reported flights. Totals are integers, and percentiles are delays that occurred,
    so that any other tool computes the very same numbers.
-#}
{% macro delay_measures() -%}
    cast(count(*) as int) as flights,
    cast(count_if(is_cancelled) as int) as cancelled_flights,
    cast(count_if(is_diverted) as int) as diverted_flights,
    cast(count(arrival_delay_minutes) as int) as arrived_flights,
    cast(count_if(is_late) as int) as late_flights,
    coalesce(sum(departure_delay_minutes), 0) as departure_delay_minutes_total,
    coalesce(sum(arrival_delay_minutes), 0) as arrival_delay_minutes_total,
    sum(departure_delay_minutes) / nullif(count(departure_delay_minutes), 0) as mean_departure_delay_minutes,
    sum(arrival_delay_minutes) / nullif(count(arrival_delay_minutes), 0) as mean_arrival_delay_minutes,
    cast(percentile_disc(0.5) within group (order by arrival_delay_minutes) as int) as median_arrival_delay_minutes,
    cast(percentile_disc(0.9) within group (order by arrival_delay_minutes) as int) as p90_arrival_delay_minutes,
    count_if(is_late) / nullif(count(arrival_delay_minutes), 0) as late_rate
{%- endmacro %}
