//! A bucket as a store: S3, Google's, Azure's. Credentials come from the environment.
//!
//! Small objects are put on the condition that there is none of that name. Large ones go up in parts, for which
//! the services know no such condition: we look before. Who comes between brings the same, by its name (see
//! [`object`](crate::backup::object)).

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path as Key;
use object_store::{
    ClientConfigKey, Error, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutPayload, RetryConfig,
};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::explain::{explain, no_bucket};
use super::place::Place;
use super::{Entry, Put, Store, StoreError};
use crate::engine::BoxFuture;

/// Bytes up to which an object goes in one piece, and of a part.
const PIECE: u64 = 8 << 20;
/// Services take 10,000 parts.
const PARTS: u64 = 9_000;
/// For one request, as a whole copy may take to come, and without a word from the store.
const WHOLE: &str = "1h";
const SILENCE: &str = "60s";
/// LiteFS tries again itself, so not for long.
const RETRIES: usize = 2;
const RETRY: Duration = Duration::from_secs(20);

pub(super) struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: String,
}

impl Bucket {
    /// # Errors
    ///
    /// When what is in the environment cannot be right.
    pub(super) fn open(place: &Place) -> Result<Self, StoreError> {
        // Whichever this build has; the crate takes the process' own.
        drop(crate::tls::provider().as_ref().clone().install_default());
        let url = place.url();
        let retry =
            RetryConfig { max_retries: RETRIES, retry_timeout: RETRY, ..RetryConfig::default() };
        let (whole, silence) = (ClientConfigKey::Timeout, ClientConfigKey::ReadTimeout);
        // Set one by one: what the environment says of the rest stays.
        let store: Result<Arc<dyn ObjectStore>, Error> = match url.split_once("://") {
            Some(("gs", _)) => GoogleCloudStorageBuilder::from_env()
                .with_url(url)
                .with_retry(retry)
                .with_config(GoogleConfigKey::Client(whole), WHOLE)
                .with_config(GoogleConfigKey::Client(silence), SILENCE)
                .build()
                .map(|store| Arc::new(store) as _),
            Some(("az", _)) => MicrosoftAzureBuilder::from_env()
                .with_url(url)
                .with_retry(retry)
                .with_config(AzureConfigKey::Client(whole), WHOLE)
                .with_config(AzureConfigKey::Client(silence), SILENCE)
                .build()
                .map(|store| Arc::new(store) as _),
            _ => AmazonS3Builder::from_env()
                .with_url(url)
                .with_retry(retry)
                .with_config(AmazonS3ConfigKey::Client(whole), WHOLE)
                .with_config(AmazonS3ConfigKey::Client(silence), SILENCE)
                .build()
                .map(|store| Arc::new(store) as _),
        };
        Ok(Self {
            store: store.map_err(|error| explain(&error))?,
            prefix: place.prefix().to_owned(),
        })
    }

    fn key(&self, key: &str) -> Result<Key, StoreError> {
        let whole = match self.prefix.is_empty() {
            true => key.to_owned(),
            false => format!("{}/{key}", self.prefix),
        };
        Key::parse(whole.trim_end_matches('/')).map_err(|why| StoreError::Refused(why.to_string()))
    }

    async fn put_whole(&self, key: &Key, from: &Path) -> Result<Put, StoreError> {
        let bytes = tokio::fs::read(from).await.map_err(here)?;
        match self.store.put_opts(key, PutPayload::from(bytes), PutMode::Create.into()).await {
            Ok(_) => Ok(Put::Made),
            Err(Error::AlreadyExists { .. }) => Ok(Put::Exists),
            Err(error) => Err(explain(&error)),
        }
    }

    async fn put_in_parts(&self, key: &Key, from: &Path, size: u64) -> Result<Put, StoreError> {
        match self.store.head(key).await {
            Ok(_) => return Ok(Put::Exists),
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(explain(&error)),
        }
        let mut upload = self.store.put_multipart(key).await.map_err(|error| explain(&error))?;
        let sent = send(&mut *upload, from, size).await;
        if sent.is_err() {
            // What is left of it costs, and nobody sees it.
            let _ = upload.abort().await;
        }
        sent.map(|()| Put::Made)
    }
}

async fn send(upload: &mut dyn MultipartUpload, from: &Path, size: u64) -> Result<(), StoreError> {
    let piece = PIECE.max(size / PARTS + 1);
    let mut file = File::open(from).await.map_err(here)?;
    loop {
        let mut part = Vec::new();
        (&mut file).take(piece).read_to_end(&mut part).await.map_err(here)?;
        if part.is_empty() {
            break;
        }
        let part = PutPayload::from(Bytes::from(part));
        upload.put_part(part).await.map_err(|error| explain(&error))?;
    }
    upload.complete().await.map(drop).map_err(|error| explain(&error))
}

impl Store for Bucket {
    fn put<'a>(&'a self, key: &'a str, from: &'a Path) -> BoxFuture<'a, Result<Put, StoreError>> {
        Box::pin(async move {
            let key = self.key(key)?;
            let size = tokio::fs::metadata(from).await.map_err(here)?.len();
            let put = match size <= PIECE {
                true => self.put_whole(&key, from).await,
                false => self.put_in_parts(&key, from, size).await,
            };
            put.map_err(no_bucket)
        })
    }

    fn get<'a>(&'a self, key: &'a str, to: &'a Path) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let got = self.store.get(&self.key(key)?).await.map_err(|error| explain(&error))?;
            let mut pieces = got.into_stream();
            let mut file = File::create(to).await.map_err(here)?;
            while let Some(piece) = pieces.try_next().await.map_err(|error| explain(&error))? {
                file.write_all(&piece).await.map_err(here)?;
            }
            file.flush().await.map_err(here)
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Entry>, StoreError>> {
        Box::pin(async move {
            let below = self.key(prefix)?;
            let listed = self.store.list(Some(&below)).map_ok(|found| self.entry(&found));
            let listed: Vec<_> = listed.try_collect().await.map_err(|error| explain(&error))?;
            Ok(listed.into_iter().flatten().collect())
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            match self.store.delete(&self.key(key)?).await {
                Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(explain(&error)),
            }
        })
    }
}

impl Bucket {
    fn entry(&self, found: &ObjectMeta) -> Option<Entry> {
        let key = found.location.as_ref().strip_prefix(&self.prefix)?;
        let modified = u64::try_from(found.last_modified.timestamp_millis()).unwrap_or_default();
        Some(Entry { key: key.trim_start_matches('/').to_owned(), size: found.size, modified })
    }
}

fn here(error: io::Error) -> StoreError {
    StoreError::Failed(error.to_string())
}
