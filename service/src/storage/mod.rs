//! Files in an object store: in memory, in a directory, or in S3. Each call is a span.

mod call;
mod s3;

use std::sync::Arc;

use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, local::LocalFileSystem, memory::InMemory, path::Path};

use self::call::{Backend, Call};
use crate::{settings::StorageSettings, telemetry::Telemetry};

/// Why a storage call did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// No such file.
    #[error("no file {name}")]
    NotFound {
        /// The name that was asked for.
        name: String,
    },
    /// The store failed, or is not there.
    #[error("storage failed")]
    Store(#[from] object_store::Error),
}

/// The files of this service; cheap to clone.
#[derive(Clone, Debug)]
pub struct FileStore {
    store: Arc<dyn ObjectStore>,
    backend: Backend,
    prefix: Path,
    telemetry: Telemetry,
}

impl FileStore {
    /// Opens the store that the settings name. S3 is not contacted yet.
    ///
    /// # Errors
    /// When the directory cannot be opened or the `AWS_*` variables are no configuration.
    pub fn open(settings: &StorageSettings, telemetry: Telemetry) -> Result<Self, StorageError> {
        let (store, backend, prefix): (Arc<dyn ObjectStore>, _, _) = match settings {
            StorageSettings::Memory => (Arc::new(InMemory::new()), Backend::Memory, Path::default()),
            StorageSettings::Directory(directory) => {
                (Arc::new(LocalFileSystem::new_with_prefix(directory)?), Backend::Directory, Path::default())
            }
            StorageSettings::S3 { bucket, prefix, aws } => (
                Arc::new(s3::open(bucket, aws, telemetry.clone())?),
                Backend::S3 { bucket: bucket.clone() },
                Path::parse(prefix).map_err(object_store::Error::from)?,
            ),
        };
        Ok(Self { store, backend, prefix, telemetry })
    }

    /// The files directly in a directory, as paths from the prefix, in the store's key order.
    ///
    /// `directory` is a path with or without slashes at its ends; empty for the top. `.` and `..`
    /// count; a path that leaves the prefix is a directory without files, as is one that does not
    /// exist.
    ///
    /// # Errors
    /// [`StorageError::Store`]
    pub async fn list(&self, directory: &str) -> Result<Vec<String>, StorageError> {
        let Some(directory) = self.directory(directory) else {
            return Ok(Vec::new());
        };
        let call = Call::start(&self.telemetry, &self.backend, "ListObjectsV2", &directory);
        let result = call.run(self.store.list_with_delimiter(Some(&directory))).await;
        match result {
            Ok(listing) => {
                call.succeed();
                let mut files: Vec<_> =
                    listing.objects.iter().filter_map(|object| self.name_of(&object.location)).collect();
                files.sort_unstable();
                Ok(files)
            }
            // Only a directory on disk can be missing; a missing bucket is a failure.
            Err(object_store::Error::NotFound { .. }) if self.backend == Backend::Directory => {
                call.succeed();
                Ok(Vec::new())
            }
            Err(error) => Err(call.fail(error).into()),
        }
    }

    /// The content of a file.
    ///
    /// # Errors
    /// [`StorageError::NotFound`], [`StorageError::Store`]
    pub async fn get(&self, name: &str) -> Result<Bytes, StorageError> {
        let key = self.key(name)?;
        let call = Call::start(&self.telemetry, &self.backend, "GetObject", &key);
        let read = async { self.store.get(&key).await?.bytes().await };
        match call.run(read).await {
            Ok(content) => {
                call.succeed();
                Ok(content)
            }
            Err(error) => match call.fail(error) {
                error @ object_store::Error::NotFound { .. } if !s3::is_missing_bucket(&error) => {
                    Err(StorageError::NotFound { name: name.to_owned() })
                }
                error => Err(error.into()),
            },
        }
    }

    /// Creates or overwrites a file.
    ///
    /// # Errors
    /// [`StorageError::Store`]
    pub async fn put(&self, name: &str, content: Bytes) -> Result<(), StorageError> {
        let key = self.key(name)?;
        let call = Call::start(&self.telemetry, &self.backend, "PutObject", &key);
        match call.run(self.store.put(&key, content.into())).await {
            Ok(_) => {
                call.succeed();
                Ok(())
            }
            Err(error) => Err(call.fail(error).into()),
        }
    }

    /// Deletes a file; one that does not exist is deleted already.
    ///
    /// # Errors
    /// [`StorageError::Store`]
    pub async fn delete(&self, name: &str) -> Result<(), StorageError> {
        let key = self.key(name)?;
        let call = Call::start(&self.telemetry, &self.backend, "DeleteObject", &key);
        match call.run(self.store.delete(&key)).await {
            Ok(()) => {}
            Err(error @ object_store::Error::NotFound { .. }) if !s3::is_missing_bucket(&error) => {}
            Err(error) => return Err(call.fail(error).into()),
        }
        call.succeed();
        Ok(())
    }

    fn key(&self, name: &str) -> Result<Path, object_store::Error> {
        let key = match self.prefix.as_ref() {
            "" => Path::parse(name),
            prefix => Path::parse(format!("{prefix}/{name}")),
        };
        Ok(key?)
    }

    fn directory(&self, directory: &str) -> Option<Path> {
        let mut segments: Vec<&str> = Vec::new();
        for segment in directory.split('/') {
            match segment {
                "" | "." => {}
                ".." => {
                    segments.pop()?;
                }
                name => segments.push(name),
            }
        }
        match segments.is_empty() {
            true => Some(self.prefix.clone()),
            false => self.key(&segments.join("/")).ok(),
        }
    }

    fn name_of(&self, key: &Path) -> Option<String> {
        let rest = key.as_ref().strip_prefix(self.prefix.as_ref())?;
        let name = rest.strip_prefix('/').unwrap_or(rest);
        (!name.is_empty()).then(|| name.to_owned())
    }
}
