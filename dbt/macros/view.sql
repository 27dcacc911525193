{#- dbt's view, except that one which stands already with the same text is left as it is: half a second saved for each. -#}
{% materialization view, adapter='spark' %}
    {%- set existing = load_cached_relation(this) -%}
    {%- set unchanged = existing is not none and existing.is_view
        and '\nView Text: ' ~ (compiled_code | trim) ~ '\nView Original Text: ' in (existing.information or '') -%}
    {%- if not unchanged or should_full_refresh() -%}
        {{ return(create_or_replace_view()) }}
    {%- endif -%}
    {%- call noop_statement('main', 'UNCHANGED') -%}
        {{ compiled_code }}
    {%- endcall -%}
    {{ return({'relations': [this.incorporate(type='view')]}) }}
{% endmaterialization %}
