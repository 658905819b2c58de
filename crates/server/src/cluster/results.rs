//! [`Results`]: where workers put images, and front ends fetch them.

use std::path::Path;
use std::sync::Arc;

use async_nats::jetstream::object_store::ObjectStore as QueueBucket;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt};

use super::connection::{self, Connection};
use super::error::{ClusterError, Result};
use super::files;

/// What the address of an S3-compatible store begins with.
const S3: &str = "s3://";

/// Where workers put images, and front ends fetch them.
#[derive(Clone)]
pub(crate) enum Results {
    /// A folder, or a store that speaks S3.
    Store(Arc<dyn ObjectStore>),
    /// The object store of the queue.
    Queue(Arc<QueueBucket>),
}

impl Results {
    /// The results at `place`, or those of the queue.
    ///
    /// # Errors
    /// The place is none, or the queue fails.
    pub(crate) async fn open(place: Option<&str>, connection: &Connection) -> Result<Self> {
        let Some(place) = place else {
            let bucket = connection::object_bucket(&connection.context, "sd-results").await?;
            return Ok(Self::Queue(Arc::new(bucket)));
        };
        Self::at(place)
    }

    /// The results in a folder or in S3.
    fn at(place: &str) -> Result<Self> {
        let wrong = |reason: String| ClusterError::Place {
            place: place.to_owned(),
            reason,
        };
        if let Some(rest) = place.strip_prefix(S3) {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            // The cryptography of connections, which another part of the program may have set.
            let _ = async_nats::rustls::crypto::ring::default_provider().install_default();
            // The keys, the region and the endpoint are those of the environment, as for other programs.
            let store = AmazonS3Builder::from_env().with_bucket_name(bucket).build();
            let store = store.map_err(|error| wrong(error.to_string()))?;
            return Ok(Self::Store(Arc::new(PrefixStore::new(store, prefix))));
        }
        if place.contains("://") {
            return Err(wrong("it is a folder or s3://BUCKET/PREFIX".to_owned()));
        }
        let folder = Path::new(place);
        let store = std::fs::create_dir_all(folder)
            .map_err(|error| error.to_string())
            .and_then(|()| LocalFileSystem::new_with_prefix(folder).map_err(|error| error.to_string()));
        Ok(Self::Store(Arc::new(
            store.map_err(wrong)?.with_automatic_cleanup(true),
        )))
    }

    /// Writes `bytes` as `name`, whole or not at all, over what an earlier worker wrote.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        match self {
            Self::Queue(bucket) => files::put(bucket, name, &bytes).await,
            Self::Store(store) => {
                let stored = store.put(&ObjectPath::from(name), bytes.into()).await;
                stored.map(drop).map_err(failed("write", name))
            }
        }
    }

    /// The bytes of `name`.
    ///
    /// # Errors
    /// There is none, or the store fails.
    pub(crate) async fn get(&self, name: &str) -> Result<Vec<u8>> {
        match self {
            Self::Queue(bucket) => files::get(bucket, name).await,
            Self::Store(store) => {
                let object = store.get(&ObjectPath::from(name)).await;
                let bytes = object.map_err(failed("read", name))?.bytes().await;
                Ok(bytes.map_err(failed("read", name))?.into())
            }
        }
    }

    /// Removes `name`. What cannot be removed stays.
    pub(crate) async fn remove(&self, name: &str) {
        let removed = match self {
            Self::Queue(bucket) => bucket.delete(name).await.map_err(|error| error.to_string()),
            Self::Store(store) => {
                let removed = store.delete(&ObjectPath::from(name)).await;
                removed.map_err(|error| error.to_string())
            }
        };
        if let Err(error) = removed {
            tracing::debug!("the result `{name}` stays: {error}");
        }
    }
}

fn failed(action: &'static str, name: &str) -> impl FnOnce(object_store::Error) -> ClusterError {
    move |source| ClusterError::Results {
        action,
        name: name.to_owned(),
        source: source.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_results_under_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("results");
        let results = Results::at(&place.display().to_string()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for bytes in [b"first", b"again"] {
                results.put("front/job/0.png", bytes.to_vec()).await.unwrap();
            }
            assert_eq!(results.get("front/job/0.png").await.unwrap(), b"again");
            results.remove("front/job/0.png").await;
            assert!(matches!(
                results.get("front/job/0.png").await,
                Err(ClusterError::Results { .. })
            ));
        });
        assert!(matches!(
            Results::at("https://x"),
            Err(ClusterError::Place { .. })
        ));
    }
}
