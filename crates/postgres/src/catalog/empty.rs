//! Relations of `pg_catalog` that are always empty here: no indexes, constraints, views,
//! triggers, extensions. Tools join them all the same.

/// Name, and columns as `catalog::rows` reads them.
pub(super) const RELATIONS: [(&str, &str); 37] = [
    ("pg_am", "oid:i amname:t amhandler:t amtype:t"),
    ("pg_attrdef", "oid:i adrelid:i adnum:i adbin:t adsrc:t"),
    ("pg_auth_members", "oid:i roleid:i member:i grantor:i admin_option:b"),
    ("pg_cast", "oid:i castsource:i casttarget:i castfunc:i castcontext:t castmethod:t"),
    (
        "pg_collation",
        "oid:i collname:t collnamespace:i collowner:i collprovider:t collisdeterministic:b collencoding:i \
         collcollate:t collctype:t colliculocale:t collversion:t",
    ),
    (
        "pg_constraint",
        "oid:i conname:t connamespace:i contype:t condeferrable:b condeferred:b convalidated:b conrelid:i \
         contypid:i conindid:i conparentid:i confrelid:i confupdtype:t confdeltype:t confmatchtype:t \
         conislocal:b coninhcount:i connoinherit:b conkey:t confkey:t conbin:t",
    ),
    ("pg_db_role_setting", "setdatabase:i setrole:i setconfig:t"),
    ("pg_depend", "classid:i objid:i objsubid:i refclassid:i refobjid:i refobjsubid:i deptype:t"),
    ("pg_enum", "oid:i enumtypid:i enumsortorder:f enumlabel:t"),
    ("pg_event_trigger", "oid:i evtname:t evtevent:t evtowner:i evtfoid:i evtenabled:t evttags:t"),
    (
        "pg_extension",
        "oid:i extname:t extowner:i extnamespace:i extrelocatable:b extversion:t extconfig:t extcondition:t",
    ),
    (
        "pg_foreign_data_wrapper",
        "oid:i fdwname:t fdwowner:i fdwhandler:i fdwvalidator:i fdwacl:t fdwoptions:t",
    ),
    ("pg_foreign_server", "oid:i srvname:t srvowner:i srvfdw:i srvtype:t srvversion:t srvacl:t srvoptions:t"),
    ("pg_foreign_table", "ftrelid:i ftserver:i ftoptions:t"),
    (
        "pg_index",
        "indexrelid:i indrelid:i indnatts:i indnkeyatts:i indisunique:b indnullsnotdistinct:b indisprimary:b \
         indisexclusion:b indimmediate:b indisclustered:b indisvalid:b indcheckxmin:b indisready:b indislive:b \
         indisreplident:b indkey:t indcollation:t indclass:t indoption:t indexprs:t indpred:t",
    ),
    ("pg_indexes", "schemaname:t tablename:t indexname:t tablespace:t indexdef:t"),
    ("pg_inherits", "inhrelid:i inhparent:i inhseqno:i inhdetachpending:b"),
    ("pg_language", "oid:i lanname:t lanowner:i lanispl:b lanpltrusted:b"),
    ("pg_locks", "locktype:t database:i relation:i pid:i mode:t granted:b"),
    (
        "pg_matviews",
        "schemaname:t matviewname:t matviewowner:t tablespace:t hasindexes:b ispopulated:b definition:t",
    ),
    (
        "pg_operator",
        "oid:i oprname:t oprnamespace:i oprowner:i oprkind:t oprleft:i oprright:i oprresult:i oprcode:t",
    ),
    ("pg_partitioned_table", "partrelid:i partstrat:t partnatts:i partdefid:i"),
    ("pg_policy", "oid:i polname:t polrelid:i polcmd:t polpermissive:b polroles:t polqual:t polwithcheck:t"),
    (
        "pg_proc",
        "oid:i proname:t pronamespace:i proowner:i prolang:i procost:f prorows:f prokind:t prosecdef:b \
         proleakproof:b proisstrict:b proretset:b provolatile:t pronargs:i prorettype:i proargtypes:t \
         proallargtypes:t proargmodes:t proargnames:t prosrc:t proacl:t",
    ),
    (
        "pg_publication",
        "oid:i pubname:t pubowner:i puballtables:b pubinsert:b pubupdate:b pubdelete:b pubtruncate:b pubviaroot:b",
    ),
    ("pg_publication_namespace", "oid:i pnpubid:i pnnspid:i"),
    ("pg_publication_rel", "oid:i prpubid:i prrelid:i prqual:t prattrs:t"),
    ("pg_range", "rngtypid:i rngsubtype:i rngmultitypid:i rngcollation:i"),
    ("pg_rewrite", "oid:i rulename:t ev_class:i ev_type:t ev_enabled:t is_instead:b"),
    (
        "pg_sequence",
        "seqrelid:i seqtypid:i seqstart:i seqincrement:i seqmax:i seqmin:i seqcache:i seqcycle:b",
    ),
    ("pg_shdescription", "objoid:i classoid:i description:t"),
    ("pg_stat_activity", "datid:i datname:t pid:i usename:t application_name:t state:t query:t"),
    (
        "pg_statistic_ext",
        "oid:i stxrelid:i stxname:t stxnamespace:i stxowner:i stxstattarget:i stxkeys:t stxkind:t",
    ),
    ("pg_tablespace", "oid:i spcname:t spcowner:i spcacl:t spcoptions:t"),
    (
        "pg_trigger",
        "oid:i tgrelid:i tgparentid:i tgname:t tgfoid:i tgtype:i tgenabled:t tgisinternal:b tgconstraint:i",
    ),
    ("pg_user_mapping", "oid:i umuser:i umserver:i umoptions:t"),
    ("pg_views", "schemaname:t viewname:t viewowner:t definition:t"),
];
