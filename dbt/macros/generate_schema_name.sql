{#-
    The configured schema as it is: names do not depend on who builds. DBT_SCHEMA_PREFIX makes a sandbox
    of schemas of its own, sources included.
-#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ env_var('DBT_SCHEMA_PREFIX', '') }}{{ (custom_schema_name or target.schema) | trim }}
{%- endmacro %}
