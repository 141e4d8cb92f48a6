SELECT 'pg_proc' AS class, md5(string_agg(concat_ws('/', x.oid, x.proname, x.pronamespace, x.proowner, x.prolang, x.prokind,
    x.prosecdef, x.proleakproof, x.proisstrict, x.proretset, x.provolatile, x.prorettype, x.proargtypes, x.proargmodes,
    x.provariadic, x.prosupport::oid, x.prosrc, x.probin, x.proconfig,
    CASE WHEN x.prosqlbody IS NOT NULL THEN pg_get_function_sqlbody(x.oid) END), '|' ORDER BY x.oid)) AS digest
FROM pg_proc x WHERE x.oid < 8000 OR x.oid BETWEEN 10000 AND 11999
UNION ALL
SELECT 'pg_type', md5(string_agg(concat_ws('/', x.oid, x.typname, x.typnamespace, x.typowner, x.typtype, x.typcategory,
    x.typispreferred, x.typisdefined, x.typsubscript::oid, x.typelem, x.typarray, x.typinput::oid,
    x.typoutput::oid, x.typreceive::oid, x.typsend::oid, x.typmodin::oid, x.typmodout::oid, x.typanalyze::oid, x.typnotnull,
    x.typbasetype, x.typcollation, x.typdefault), '|' ORDER BY x.oid))
FROM pg_type x WHERE x.oid < 8000 AND x.typrelid = 0
UNION ALL
SELECT 'pg_operator', md5(string_agg(concat_ws('/', x.oid, x.oprname, x.oprnamespace, x.oprowner, x.oprkind, x.oprcanmerge,
    x.oprcanhash, x.oprleft, x.oprright, x.oprresult, x.oprcom, x.oprnegate, x.oprcode::oid, x.oprrest::oid, x.oprjoin::oid),
    '|' ORDER BY x.oid))
FROM pg_operator x WHERE x.oid < 8000
UNION ALL
SELECT 'pg_aggregate', md5(string_agg(concat_ws('/', x.aggfnoid::oid, x.aggkind, x.aggtransfn::oid, x.aggfinalfn::oid,
    x.aggcombinefn::oid, x.aggserialfn::oid, x.aggdeserialfn::oid, x.aggmtransfn::oid, x.aggminvtransfn::oid,
    x.aggmfinalfn::oid, x.aggsortop, x.aggtranstype, x.agginitval, x.aggminitval), '|' ORDER BY x.aggfnoid::oid))
FROM pg_aggregate x WHERE x.aggfnoid::oid < 8000
UNION ALL
SELECT 'pg_cast', md5(string_agg(x::text, '|' ORDER BY x.oid)) FROM pg_cast x WHERE x.oid < 8000 OR x.oid BETWEEN 10000 AND 11999
UNION ALL
SELECT 'pg_opclass', md5(string_agg(x::text, '|' ORDER BY x.oid))
FROM pg_opclass x WHERE x.oid < 8000 OR x.oid BETWEEN 10000 AND 11999
UNION ALL
SELECT 'pg_opfamily', md5(string_agg(x::text, '|' ORDER BY x.oid)) FROM pg_opfamily x WHERE x.oid < 8000
UNION ALL
SELECT 'pg_amop', md5(string_agg(x::text, '|' ORDER BY x.oid)) FROM pg_amop x WHERE x.oid BETWEEN 10000 AND 11999
UNION ALL
SELECT 'pg_amproc', md5(string_agg(concat_ws('/', x.oid, x.amprocfamily, x.amproclefttype, x.amprocrighttype, x.amprocnum,
    x.amproc::oid), '|' ORDER BY x.oid))
FROM pg_amproc x WHERE x.oid BETWEEN 10000 AND 11999
UNION ALL
SELECT 'pg_am', md5(string_agg(concat_ws('/', x.oid, x.amname, x.amhandler::oid, x.amtype), '|' ORDER BY x.oid))
FROM pg_am x WHERE x.oid < 8000
