{#-
    What a build is told of the sources, from DBT_SOURCE_STATE in the environment; nothing when dbt is run by hand.

    reads: source, such as `bronze.weather`, to the version that it is to be read at.
    made_from: model to what its commit is to say that decides about its rows.
    unchanged: the models that are left alone, since they would be made again as they are.
-#}
{% macro source_state() -%}
    {{ return(fromjson(env_var('DBT_SOURCE_STATE', '{}'))) }}
{%- endmacro %}


{#-
    The query of a model, on the versions of the sources that the build is told, whatever is released meanwhile.

    The views of this project show what is released now, so what each of them is made from is put in front of the query
    under its name, treated likewise.
-#}
{% macro at_one_state(query, node) -%}
    {%- set reads = source_state().get('reads') -%}
    {%- if not reads -%}
        {{ return(query) }}
    {%- endif -%}
    {%- set text = namespace(query=query) -%}
    {%- set named = [] -%}
    {%- for parent in read_without_rows(node) -%}
        {%- set is_source = parent.resource_type == 'source' -%}
        {%- set name = parent.identifier if is_source else parent.alias -%}
        {%- set relation = api.Relation.create(schema=parent.schema, identifier=name) -%}
        {%- if is_source -%}
            {%- set source_name = parent.source_name ~ '.' ~ parent.name -%}
            {%- if source_name not in reads -%}
                {{ exceptions.raise_compiler_error(source_name ~ " had not been released when the build began.") }}
            {%- endif -%}
            {%- set made_from = 'select * from ' ~ parent.schema ~ '_next.' ~ name ~ ' version as of ' ~ reads[source_name] -%}
        {%- else -%}
            {%- set made_from = at_one_state(query_of_view(relation), parent) -%}
        {%- endif -%}
        {%- set text.query = modules.re.sub('\\b' ~ modules.re.escape(relation | string) ~ '\\b', name, text.query) -%}
        {%- do named.append(name ~ ' as (\n' ~ made_from ~ '\n)') -%}
    {%- endfor -%}
    {%- if not named -%}
        {{ return(query) }}
    {%- endif -%}
    {{ return('with ' ~ named | join(',\n') ~ '\nselect * from (\n' ~ text.query ~ '\n)') }}
{%- endmacro %}


{#- The sources and views that the query of a model names, or an ephemeral one in it. -#}
{% macro read_without_rows(node) -%}
    {%- set found = [] -%}
    {%- for id in node.depends_on.nodes -%}
        {%- if id in graph.sources -%}
            {%- do found.append(graph.sources[id]) -%}
        {%- elif graph.nodes[id].config.materialized == 'view' -%}
            {%- do found.append(graph.nodes[id]) -%}
        {%- elif graph.nodes[id].config.materialized == 'ephemeral' -%}
            {%- do found.extend(read_without_rows(graph.nodes[id])) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(found | unique(attribute='unique_id') | list) }}
{%- endmacro %}


{% macro query_of_view(view) -%}
    {%- for row in run_query('describe table extended ' ~ view) if row['col_name'] == 'View Text' -%}
        {{ return(row['data_type']) }}
    {%- endfor -%}
{%- endmacro %}
