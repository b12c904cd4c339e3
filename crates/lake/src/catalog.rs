//! The catalogue of one query: it contains what the caller may see, and resolves a table
//! when it is named. Nothing is loaded or copied to make one.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::TableType;
use levada_core::{SourceName, TableName, Zone};

use crate::bronze::BronzeTable;
use crate::engine::{CATALOG, DEFAULT_SCHEMA};
use crate::pins::Pins;
use crate::provider::LakeTable;
use crate::scope::{Meaning, Scope};

const PG_CATALOG: &str = "pg_catalog";
/// Where bare names are looked up by a session that set its own path. No schema is called so.
pub(crate) const SEARCH_PATH: &str = "search path";

/// Relations that an edge adds, for instance stubs of `pg_catalog`: schema, then name.
pub(crate) type Relations = BTreeMap<String, BTreeMap<String, Arc<dyn TableProvider>>>;

/// What the parts of a query's catalogue share.
#[derive(Debug)]
pub(crate) struct Visible {
    pub scope: Arc<Scope>,
    pub relations: Arc<Relations>,
    pub pins: Arc<Pins>,
    /// The schemas that [`SEARCH_PATH`] means.
    pub path: Vec<String>,
}

impl Visible {
    pub fn resolve(&self, catalog: &str, schema: &str, table: &str) -> Meaning {
        if schema == SEARCH_PATH {
            let named = self.path.iter().map(|schema| self.resolve_in(catalog, schema, table));
            return named
                .into_iter()
                .find(|found| !matches!(found, Meaning::Nothing))
                .unwrap_or(Meaning::Nothing);
        }
        self.resolve_in(catalog, schema, table)
    }

    fn resolve_in(&self, catalog: &str, schema: &str, table: &str) -> Meaning {
        match (schema.parse::<Zone>(), SourceName::new(table)) {
            (Ok(zone), Ok(name)) => {
                self.scope.resolve(self.pins.lake(), catalog, &TableName::new(zone, name))
            }
            _ => Meaning::Nothing,
        }
    }

    /// A relation of an edge. Bare names are looked up in `pg_catalog` too, as PostgreSQL does.
    fn relation(&self, catalog: &str, schema: &str, table: &str) -> Option<Arc<dyn TableProvider>> {
        if catalog != CATALOG {
            return None;
        }
        let schema = if schema == DEFAULT_SCHEMA || schema == SEARCH_PATH { PG_CATALOG } else { schema };
        self.relations.get(schema).and_then(|tables| tables.get(table)).cloned()
    }

    pub fn knows(&self, catalog: &str, schema: &str, table: &str) -> bool {
        self.relation(catalog, schema, table).is_some()
            || matches!(self.resolve(catalog, schema, table), Meaning::Table(..) | Meaning::Source(..))
    }

    fn provider(&self, catalog: &str, schema: &str, table: &str) -> Option<Arc<dyn TableProvider>> {
        match self.resolve(catalog, schema, table) {
            Meaning::Table(slot, tenants) => {
                Some(Arc::new(LakeTable::new(slot, tenants, Arc::clone(&self.pins))))
            }
            Meaning::Source(source, tenants) => {
                Some(Arc::new(BronzeTable::new(self.pins.lake().clone(), source, tenants)))
            }
            Meaning::Ambiguous(_) | Meaning::Nothing => self.relation(catalog, schema, table),
        }
    }
}

/// All catalogues of a query.
#[derive(Debug)]
pub(crate) struct Catalogs(pub Arc<Visible>);

impl CatalogProviderList for Catalogs {
    fn register_catalog(&self, _: String, _: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        let mut names = vec![CATALOG.to_owned()];
        names.extend(self.0.scope.tenant_catalogs(self.0.pins.lake()));
        names
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        let visible = Arc::clone(&self.0);
        visible.scope.has_catalog(name).then(|| {
            let catalog: Arc<dyn CatalogProvider> = Arc::new(Catalog { visible, name: name.to_owned() });
            catalog
        })
    }
}

#[derive(Debug)]
struct Catalog {
    visible: Arc<Visible>,
    name: String,
}

impl CatalogProvider for Catalog {
    fn schema_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.visible.scope.zones.iter().map(ToString::to_string).collect();
        if self.name == CATALOG {
            names.extend(self.visible.relations.keys().cloned());
            names.sort();
            names.dedup();
        }
        names
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if name != SEARCH_PATH && !self.schema_names().iter().any(|known| known == name) {
            return None;
        }
        Some(Arc::new(Schema {
            visible: Arc::clone(&self.visible),
            catalog: self.name.clone(),
            name: name.to_owned(),
        }))
    }
}

#[derive(Debug)]
struct Schema {
    visible: Arc<Visible>,
    catalog: String,
    name: String,
}

#[async_trait]
impl SchemaProvider for Schema {
    fn table_names(&self) -> Vec<String> {
        let mut names: Vec<String> = match self.name.parse::<Zone>() {
            Ok(zone) if self.visible.scope.zones.contains(&zone) => {
                let found = self.visible.scope.names(self.visible.pins.lake(), &self.catalog, zone);
                found.iter().map(ToString::to_string).collect()
            }
            _ => Vec::new(),
        };
        if self.catalog == CATALOG
            && let Some(relations) = self.visible.relations.get(&self.name)
        {
            names.extend(relations.keys().cloned());
        }
        names
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        Ok(self.visible.provider(&self.catalog, &self.name, name))
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        Ok(self.visible.knows(&self.catalog, &self.name, name).then_some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.visible.knows(&self.catalog, &self.name, name)
    }
}
