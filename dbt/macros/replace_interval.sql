{#-
    Materialises a model as a Delta table of which each build replaces exactly the days that it is about, in one
    statement and one commit, so that a build that is repeated or out of order leaves the same rows.

    The table is created empty from the columns in the model's properties, so version 0 holds no rows and
    there is always a good version to go back to. A query whose columns are not those of the table fails.

    config.meta.replaces: name of the macro that renders the predicate of the days to replace; the whole
    table is replaced without it. The model filters by the same macro.
    config.meta.interval_column: the DATE column that the macro is given.
    DBT_COMMIT in the environment: what the Delta commit says of itself (userMetadata).
    DBT_SOURCE_STATE: see source_state.
-#}
{% materialization replace_interval, adapter='spark', supported_languages=['sql'] %}
    {%- set target_relation = this.incorporate(type='table') -%}
    {%- set replaces = model.config.meta.get('replaces') -%}
    {%- set interval_column = model.config.meta.get('interval_column') -%}
    {%- if replaces and not interval_column -%}
        {{ exceptions.raise_compiler_error(
            "config.meta.replaces needs config.meta.interval_column: the DATE column that tells the day of a row."
        ) }}
    {%- endif -%}
    {%- set columns = model.columns.values() | map(attribute='name') | join(', ') -%}

    {%- if model.name in source_state().get('unchanged', []) and load_cached_relation(this) and not should_full_refresh() -%}
        {%- call noop_statement('main', 'UNCHANGED') -%}
            {{ compiled_code }}
        {%- endcall -%}
        {{ return({'relations': [target_relation]}) }}
    {%- endif -%}

    {{ run_hooks(pre_hooks) }}

    {%- if should_full_refresh() or load_cached_relation(this) is none %}
        {%- call statement('create') -%}
            {{ 'create or replace table' if should_full_refresh() else 'create table if not exists' }} {{ target_relation }} (
            {%- for column in model.columns.values() %}
                {{ column.name }} {{ column.data_type }} comment '{{ escape_single_quotes(column.description | trim) }}'
                {{- ',' if not loop.last }}
            {%- endfor %}
            )
            using delta
            comment '{{ escape_single_quotes(model.description | trim) }}'
            tblproperties (
                'delta.dataSkippingStatsColumns' = '{{ model.config.meta.statistics | join(",") }}',
                'delta.checkpointInterval' = '50',
                'delta.logRetentionDuration' = 'interval 3650 days'
            )
        {%- endcall -%}
    {%- endif %}

    {#- `* except (…)` is empty when the query has no other columns, and too much when it has. -#}
    {%- call statement('main') -%}
        insert {{ 'into' if replaces else 'overwrite' }} {{ target_relation }}
        with ('userMetadata' = '{{ escape_single_quotes(commit_metadata()) }}')
        {% if replaces %}replace where {{ context[replaces](interval_column) }}{% endif %}
        select {{ columns }}, * except ({{ columns }})
        from (
            {{ at_one_state(compiled_code, model) }}
        )
    {%- endcall -%}

    {{ run_hooks(post_hooks) }}

    {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}


{% macro commit_metadata() -%}
    {%- set commit = fromjson(env_var('DBT_COMMIT', tojson({'step': 'build', 'dataset': model.name}))) -%}
    {%- set state = source_state() -%}
    {%- do commit.update({'reads': state.get('reads', {})}) -%}
    {%- if model.name in state.get('made_from', {}) -%}{%- do commit.update({'made_from': state.made_from[model.name]}) -%}{%- endif -%}
    {{ tojson(commit) }}
{%- endmacro %}
