{#- dbt's view, but one that stands already with the same text is left as it is: half a second saved for each. -#}
{% materialization view, adapter='spark' %}
    {%- set existing = load_cached_relation(this) -%}
    {%- if existing is not none and existing.is_view and compiled_code | trim in (existing.information or '') %}
        {{ run_hooks(pre_hooks) }}
        {{ noop_statement('main', 'UNCHANGED', 'UNCHANGED', 0) }}
        {{ run_hooks(post_hooks) }}
        {{ return({'relations': [existing]}) }}
    {%- endif %}
    {{ return(create_or_replace_view()) }}
{% endmaterialization %}
