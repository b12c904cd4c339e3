//! Every diagnostic code with its meaning and its mend: the one list from which the
//! rendered messages, the JSON form and `docs/errors/config.md` take them.
//!
//! Codes are stable: a code is never used again for something else. `E` stops the
//! project from running, `W` does not.

/// A diagnostic code.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// Such as `E0010`.
    pub id: &'static str,
    pub title: &'static str,
    pub mend: &'static str,
}

impl Code {
    pub fn is_error(&self) -> bool {
        self.id.starts_with('E')
    }
}

macro_rules! codes {
    ($($name:ident = $id:literal, $title:literal, $mend:literal;)*) => {
        $(pub const $name: &Code = &Code { id: $id, title: $title, mend: $mend };)*
        /// All codes, in order.
        pub const ALL: &[&Code] = &[$($name),*];
    };
}

codes! {
    UNREADABLE = "E0001", "a file cannot be read", "Check its permissions, that it is UTF-8 text, and that it is under 4 MiB.";
    SYNTAX = "E0002", "the file is not valid YAML or JSON", "Mend the place that is underlined; indent YAML with spaces, never tabs.";
    DUPLICATE_KEY = "E0003", "a field is written twice in one map", "Keep one of the two.";
    NO_PROJECT = "E0004", "the folder has no levada.yaml", "Start one with `levada init DIR`, or name the folder that holds it.";
    TOO_LARGE = "E0005", "the document is nested too deep, or its aliases expand to too much", "Flatten the document; 64 levels and 200,000 values are allowed.";
    UNKNOWN_FIELD = "E0010", "a field that Levada does not know", "Correct its spelling, or take it out.";
    MISSING_FIELD = "E0011", "a required field is missing", "Add the field.";
    WRONG_TYPE = "E0012", "a value of the wrong type", "Write the type that the message names; quote a text that looks like a number.";
    BAD_VALUE = "E0013", "a value outside of what is allowed", "Take one of the values that the message names.";
    BAD_NAME = "E0014", "a name that breaks the rule of names", "Use lower-case letters, digits and underscores, as the message says.";
    BAD_QUANTITY = "E0015", "a duration or size that cannot be read", "Write a duration as 500ms, 60s, 5m, 24h or 7d and a size as 64MiB.";
    BAD_CRON = "E0016", "a schedule that is not a cron expression", "Write five fields: minute, hour, day of month, month, day of week (UTC).";
    BAD_REGEX = "E0017", "a regular expression that does not compile", "Mend the expression; look-around and back references are not supported.";
    BAD_URL = "E0018", "a URL that cannot be used", "Write an absolute http:// or https:// URL with {field} placeholders.";
    NO_ENVIRONMENT = "E0019", "an environment variable that is not set", "Set it, or give a default: ${NAME:-http://localhost:8090}.";
    BAD_LOCATION = "E0020", "a location that cannot be used", "Name a folder of the project, an absolute folder, or gs://, s3:// or az:// with a bucket; `..` is refused.";
    NO_DIALECT = "E0101", "a connector or pipeline file without a name", "Begin Levada's own file with `pipeline: <name>`, a connector with `source_id: <name>`.";
    DUPLICATE_PIPELINE = "E0102", "two pipelines or connectors of one name", "Rename one of them: the name is also the bronze table.";
    DUPLICATE_SINK = "E0103", "two pipelines or models fill one table", "Give one of them another `sink`, or join their events in one pipeline.";
    UNKNOWN_TENANT = "E0104", "a tenant that levada.yaml does not declare", "Add it to `tenants` in levada.yaml.";
    OWNERSHIP = "E0105", "an owner that this file cannot have", "Only event pipelines at the project's root are shared; files under tenants/<t>/ belong to t.";
    DUPLICATE_TENANT = "E0106", "a tenant is declared twice", "Keep one of the two.";
    NO_SCHEMA = "E0110", "a schema file that does not exist", "Create it, or correct the path (it starts at the project folder).";
    SCHEMA_FORM = "E0111", "a schema that is neither a field list nor JSON Schema", "Write {\"fields\": [...]} or a JSON Schema with \"type\": \"object\" and \"properties\".";
    FIELD_TYPE = "E0112", "a field type that Levada does not know", "Use STRING, INT64, FLOAT64, DECIMAL(12,2), NUMERIC, BOOL, TIMESTAMP, DATETIME, DATE, JSON or RECORD.";
    COLUMN = "E0113", "a column that cannot be: it exists already or is reserved", "Rename the field; `tenant_id` is carried by every row, and a STRING field of that name must agree with it.";
    REMOTE_REF = "E0114", "a schema that refers to another document", "Copy the part into this schema and refer to it as #/$defs/<name>.";
    UNKNOWN_COLUMN = "E0120", "a step reads a field that its input lacks", "Correct the name, or add the field to the schema.";
    UNKNOWN_STEP = "E0121", "a step that Levada does not know", "Use deduplicate, quality, enrich or sql, one a list item.";
    SQL_STEP = "E0122", "a SQL step that is not one SELECT from `input`", "Write `select ... from input`; a step sees the rows that flow through it and no table.";
    UNKNOWN_SECRET = "E0123", "a secret that is not there", "Put it into secrets.yaml (mode 0600) or set LEVADA_SECRET_<NAME>.";
    RULE_TYPE = "E0124", "a rule that does not fit the type of its field", "Change the rule, or the type in the schema.";
    PLAN_STEP = "E0125", "a step that cannot run on the rows that reach it", "Mend what the message names: the query's syntax, a column that its input lacks, or types that do not go together.";
    UNKNOWN_TABLE = "E0130", "a model reads a table that nothing fills", "Correct the name, or add the pipeline or model that fills it.";
    CYCLE = "E0131", "models read each other in a circle", "Take one of the references out.";
    MODEL_SQL = "E0132", "a model that is not one SELECT", "Keep one SELECT (or WITH ... SELECT) a file; its result becomes gold.<file name>.";
    MODEL_HEADER = "E0133", "a model header line that cannot be read", "Write `--! schedule: cron 0 6 * * *`, `--! schedule: on_change 10s` or `--! schedule: manual`.";
    MODEL_SHARED = "E0134", "a shared model that would mix tenants", "Select and group by `tenant_id`, and read only tables that tenants share.";
    PLAN_MODEL = "E0135", "a model that the query engine refuses", "Mend what the message names: the query's syntax, a column that its tables lack, or types that do not go together.";
    SECRETS_MODE = "E0140", "the secrets file is open to others", "Run `chmod 600 secrets.yaml`.";
    SECRETS_FORM = "E0141", "the secrets file is not a map of names to texts", "Write one `name: value` a line.";
    NOT_READ = "W0001", "a file or folder that Levada does not read", "Correct its name, or move it elsewhere.";
    MORE = "W0002", "more findings than are shown", "Mend the first ones and check again.";
    CONNECTOR_FIELD = "W0101", "a connector or schema field that Levada does not know", "Correct its spelling; it has no effect now.";
    WAITING_SCHEMA = "W0102", "a connector without a schema archives to bronze only", "Add the schema file; the pipeline then runs to silver.";
    WAITING_FIELD = "W0103", "a connector's step waits for a field", "Add the field to the schema; the other steps run.";
    WAITING_TABLE = "W0104", "a step or model waits for a table that nothing fills yet", "Add the pipeline or model that fills it; everything else runs.";
    WAITING_AGGREGATE = "W0105", "an aggregate cannot be worked out", "Write metrics as `sum(amount) as total`; `date` needs exactly one TIMESTAMP column.";
    WAITING_STEP = "W0106", "a connector's step or rule that Levada does not know", "Use the names that the message lists; the other steps run.";
    CLAIMED = "W0107", "two topics ask for one event type", "An event goes to one topic: ask for the type in one place, or let both pipelines read one topic.";
    STAYS_DOUBLE = "W0108", "a decimal column whose table holds doubles", "For exact values give the field another column name (and keep its `path`), or fill a new table with `sink`; rows that are there stay as they were rounded.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_in_order() {
        assert!(ALL.windows(2).all(|w| w[0].id < w[1].id));
    }
}
