{#-
    The federal holidays of the United States as an array of dates, from the rules of 5 U.S.C. 6103
    (on their own days, not those observed instead), for the years that an interval can look at.
-#}
{% macro us_holidays() -%}
    {%- set days = [] -%}
    {%- if execute -%}
        {%- set first = env_var('DBT_INTERVAL_START')[:4] | int - 1 -%}
        {%- set last = env_var('DBT_INTERVAL_END')[:4] | int + 1 -%}
        {%- for year in range(first, last + 1) -%}
            {%- for month, day in [(1, 1), (7, 4), (11, 11), (12, 25)] -%}
                {%- do days.append(modules.datetime.date(year, month, day)) -%}
            {%- endfor -%}
            {%- if year >= 2021 %}{% do days.append(modules.datetime.date(year, 6, 19)) %}{% endif -%}
            {#- The nth weekday of a month; Monday is 0. -#}
            {%- for month, weekday, nth in [(1, 0, 3), (2, 0, 3), (9, 0, 1), (10, 0, 2), (11, 3, 4)] -%}
                {%- set start = modules.datetime.date(year, month, 1) -%}
                {%- do days.append(start + modules.datetime.timedelta(days=(weekday - start.weekday()) % 7 + 7 * (nth - 1))) -%}
            {%- endfor -%}
            {%- set end_of_may = modules.datetime.date(year, 5, 31) -%}
            {%- do days.append(end_of_may - modules.datetime.timedelta(days=end_of_may.weekday())) -%}
        {%- endfor -%}
    {%- endif -%}
    array({% for day in days | sort %}date'{{ day.isoformat() }}'{{ ', ' if not loop.last }}{% endfor %})
{%- endmacro %}
