{#-
    The days that a build is about, from DBT_INTERVAL_START to DBT_INTERVAL_END, both included.

    They are environment variables and not dbt's, and are asked for only when a statement is made: another value of a
    variable makes dbt parse the whole project again.
-#}

{#- A day relative to an edge of the interval, as a literal. -#}
{% macro interval_day(edge, offset=0) -%}
    {%- if execute -%}
        {%- set day = modules.datetime.date.fromisoformat(env_var(edge)) + modules.datetime.timedelta(days=offset) -%}
        date'{{ day.isoformat() }}'
    {%- else -%}
        date'1970-01-01'
    {%- endif -%}
{%- endmacro %}


{#- What happened is known on the day after: a build for a day also takes in the outcomes of the day before. -#}
{% macro outcome_days(column) -%}
    {{ column }} between {{ interval_day('DBT_INTERVAL_START', -1) }} and {{ interval_day('DBT_INTERVAL_END') }}
{%- endmacro %}


{#-
    The days of the interval, and the days after it whose features have been built already and look back on it:
    when outcomes arrive late or out of order, these are built again.
-#}
{% macro feature_days(column) -%}
    {%- set later = later_days(column) -%}
    ({{ column }} between {{ interval_day('DBT_INTERVAL_START') }} and {{ interval_day('DBT_INTERVAL_END') }}
    {%- if later %} or {{ column }} in ({% for day in later %}date'{{ day }}'{{ ', ' if not loop.last }}{% endfor %}){% endif %})
{%- endmacro %}


{% macro later_days(column) -%}
    {#- `dbt compile --no-introspect` reads the columns out of the SQL, with no engine to ask. -#}
    {%- if execute and flags.INTROSPECT and load_cached_relation(this) -%}
        {%- set found = run_query(
            "select distinct " ~ column ~ " from " ~ this ~ " where " ~ column ~ " > " ~ interval_day('DBT_INTERVAL_END')
            ~ " and " ~ column ~ " <= " ~ interval_day('DBT_INTERVAL_END', trailing_days()) ~ " order by 1"
        ) -%}
        {{ return(found.columns[0].values() | map('string') | list) }}
    {%- endif -%}
    {{ return([]) }}
{%- endmacro %}


{#- How far the longest trailing window looks back. -#}
{% macro trailing_days() -%}
    {{ return(28) }}
{%- endmacro %}
