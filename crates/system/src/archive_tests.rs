//! Archives that are written and read, and files that are none.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use tenantry_domain::archive::{
    ArchiveError, ArchiveSink as _, ArchiveSource as _, Manifest, ManifestTable, ManifestTenant, TableContent,
};
use tenantry_domain::kernel::TenantId;
use uuid::Uuid;

use crate::{FileArchiveReader, FileArchiveWriter};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tenantry-archive-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn write(path: &Path, rows: &[&str], change: impl FnOnce(&mut Manifest)) {
    let mut sink = Box::new(FileArchiveWriter::create(path).unwrap());
    sink.begin("schemas/notes.json").await.unwrap();
    sink.write(b"{}".to_vec()).await.unwrap();
    let schema = sink.end().await.unwrap();
    sink.begin("tables/notes.ndjson.zst").await.unwrap();
    for row in rows {
        sink.write(format!("{row}\n").into_bytes()).await.unwrap();
    }
    let stored = sink.end().await.unwrap();
    let mut manifest = Manifest {
        format: Manifest::FORMAT.into(),
        version: Manifest::VERSION,
        tenant: ManifestTenant {
            id: TenantId::from(Uuid::nil()),
            slug: "acme".into(),
            name: "Acme".into(),
        },
        person: None,
        taken_at: chrono::DateTime::UNIX_EPOCH,
        schema_version: String::new(),
        tables: vec![ManifestTable {
            name: "notes".into(),
            content: TableContent::Data,
            rows: rows.len() as u64,
            bytes: stored.bytes,
            file: "tables/notes.ndjson.zst".into(),
            sha256: stored.sha256,
            json_schema: "schemas/notes.json".into(),
            json_schema_sha256: schema.sha256,
            left_out: Vec::new(),
        }],
        left_out: Vec::new(),
        signature: None,
    };
    change(&mut manifest);
    sink.finish(&manifest).await.unwrap();
}

async fn verdict(path: &Path) -> Result<(), ArchiveError> {
    FileArchiveReader::open(path).await?.verify().await
}

#[tokio::test]
async fn what_was_written_is_read_and_only_by_its_owner() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new("read");
    let path = folder.0.join("a.tar");
    write(&path, &["{\"id\": 1}", "{\"id\": 2}"], |_| {}).await;
    let mut reader = FileArchiveReader::open(&path).await.unwrap();
    reader.verify().await.unwrap();
    reader.open("notes").await.unwrap();
    assert_eq!(reader.next(1).await.unwrap(), ["{\"id\": 1}"]);
    assert_eq!(reader.next(1000).await.unwrap(), ["{\"id\": 2}"]);
    assert!(reader.next(1000).await.unwrap().is_empty());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!folder.0.join("a.tar.part").exists());
}

#[tokio::test]
async fn an_archive_that_was_not_finished_leaves_nothing() {
    let folder = Folder::new("unfinished");
    let path = folder.0.join("a.tar");
    let mut sink = FileArchiveWriter::create(&path).unwrap();
    sink.begin("tables/notes.ndjson.zst").await.unwrap();
    drop(sink);
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0);
}

/// Each byte of the archive, changed, is noticed: in headers, in the padding, and at the end of the file as well. The values of the
/// manifest are under the signature, which is verified elsewhere.
#[tokio::test]
async fn every_changed_byte_is_noticed() {
    let folder = Folder::new("bytes");
    let path = folder.0.join("a.tar");
    write(&path, &["{\"id\": 1}"], |_| {}).await;
    verdict(&path).await.unwrap();
    let whole = fs::read(&path).unwrap();
    let place = |text: &str| {
        let mut windows = whole.windows(text.len());
        windows.position(|window| window == text.as_bytes()).unwrap()
    };
    let end = "\"left_out\": []\n}";
    let values = place("{\n  \"format\"")..place(end) + end.len();
    for at in (0..whole.len()).filter(|at| !values.contains(at)) {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        fs::write(&path, &changed).unwrap();
        assert!(verdict(&path).await.is_err(), "byte {at}");
    }
    for name in ["schemas/notes.json", "tables/notes.ndjson.zst"] {
        let mut changed = whole.clone();
        changed[place(name) + 512] ^= 1;
        fs::write(&path, &changed).unwrap();
        let error = verdict(&path).await.unwrap_err();
        assert!(error.to_string().contains(name), "{name}: {error}");
    }
    let text = String::from_utf8_lossy(&whole).into_owned();
    assert!(text.contains("\"version\": 1,"));
    let mut spaced = whole.clone();
    let at = place("\"version\": 1,") + 10;
    (spaced[at], spaced[at + 1], spaced[at + 2]) = (b' ', b'1', b',');
    spaced[at + 3] = b' ';
    fs::write(&path, &spaced).unwrap();
    verdict(&path).await.unwrap_err();
    fs::write(&path, [&whole[..], b"\0"].concat()).unwrap();
    verdict(&path).await.unwrap_err();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    verdict(&path).await.unwrap_err();
}

/// What was at the name before is neither followed nor reused.
#[tokio::test]
async fn archive_is_a_new_file_of_its_owner() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let folder = Folder::new("new");
    let (path, part) = (folder.0.join("a.tar"), folder.0.join("a.tar.part"));
    fs::write(&part, "left").unwrap();
    fs::set_permissions(&part, fs::Permissions::from_mode(0o666)).unwrap();
    write(&path, &["{\"id\": 1}"], |_| {}).await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let victim = folder.0.join("victim");
    fs::write(&victim, "kept").unwrap();
    symlink(&victim, &part).unwrap();
    write(&path, &["{\"id\": 1}"], |_| {}).await;
    assert_eq!(fs::read_to_string(&victim).unwrap(), "kept");
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
}

#[tokio::test]
async fn second_writer_of_an_archive_is_refused() {
    let folder = Folder::new("busy");
    let path = folder.0.join("a.tar");
    let first = FileArchiveWriter::create(&path).unwrap();
    let second = FileArchiveWriter::create(&path);
    assert!(matches!(second, Err(ArchiveError::Busy(_))), "{second:?}");
    assert!(folder.0.join("a.tar.part").exists(), "the first goes on");
    drop(first);
    FileArchiveWriter::create(&path).unwrap();
}

/// A file of another kind is refused in one line that has nothing of it.
#[tokio::test]
async fn content_of_other_files_is_not_shown() {
    let folder = Folder::new("foreign");
    let path = folder.0.join("passwd");
    fs::write(&path, "root:x:0:0:root:/root:/bin/bash\n".repeat(100)).unwrap();
    let error = FileArchiveReader::open(&path).await.unwrap_err().to_string();
    assert!(
        !error.contains("root") && !error.contains('\n') && error.len() < 200,
        "{error}"
    );
}

/// No more is decompressed than the manifest says, whatever the file holds.
#[tokio::test]
async fn an_archive_that_grows_beyond_its_manifest_is_refused() {
    let folder = Folder::new("bomb");
    let path = folder.0.join("a.tar");
    let row = format!("\"{}\"", "0".repeat(1 << 20));
    let rows = vec![row.as_str(); 64];
    write(&path, &rows, |manifest| manifest.tables[0].bytes = 1000).await;
    assert!(fs::metadata(&path).unwrap().len() < 100_000);
    let error = verdict(&path).await.unwrap_err();
    assert!(
        error.to_string().contains("larger than the manifest says"),
        "{error}"
    );
    write(&path, &["{}"], |manifest| manifest.tables[0].bytes = u64::MAX).await;
    let error = verdict(&path).await.unwrap_err();
    assert!(
        error.to_string().contains("another number of rows or bytes"),
        "{error}"
    );
}

#[tokio::test]
async fn other_members_doubled_members_and_links_are_refused() {
    let folder = Folder::new("members");
    let path = folder.0.join("a.tar");
    let member = |name: &str, kind: tar::EntryType| {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(0);
        header.set_mode(0o600);
        header.set_entry_type(kind);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let regular = tar::EntryType::Regular;
    for (members, expected) in [
        (vec![member("../../etc/cron.d/x", regular)], "has no file"),
        (vec![member("/etc/passwd", regular)], "has no file"),
        (vec![member("tables/../x.ndjson.zst", regular)], "has no file"),
        (
            vec![member("manifest.json", tar::EntryType::Symlink)],
            "no plain file",
        ),
        (
            vec![member("manifest.json", regular), member("manifest.json", regular)],
            "there twice",
        ),
        (
            vec![member("tables/notes.ndjson.zst", regular)],
            "there is no manifest.json",
        ),
    ] {
        let mut bytes: Vec<u8> = members.concat();
        bytes.extend([0; 1024]);
        fs::write(&path, bytes).unwrap();
        let error = FileArchiveReader::open(&path).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
    for text in ["", "no archive at all"] {
        fs::write(&path, text).unwrap();
        FileArchiveReader::open(&path).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_file_that_the_manifest_does_not_name_is_refused() {
    let folder = Folder::new("surplus");
    let path = folder.0.join("a.tar");
    write(&path, &["{}"], |manifest| manifest.tables.clear()).await;
    let error = verdict(&path).await.unwrap_err();
    assert!(
        error.to_string().contains("the manifest does not name it"),
        "{error}"
    );
}

/// Bytes behind the compressed rows belong to the file.
#[tokio::test]
async fn bytes_behind_the_rows_are_noticed() {
    let folder = Folder::new("tail");
    let path = folder.0.join("a.tar");
    write(&path, &["{}"], |_| {}).await;
    let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut whole = Vec::new();
    file.read_to_end(&mut whole).unwrap();
    let name = b"tables/notes.ndjson.zst";
    let at = whole
        .windows(name.len())
        .position(|window| window == name)
        .unwrap();
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes().copy_from_slice(&whole[at..at + 512]);
    header.set_size(header.size().unwrap() + 1);
    header.set_cksum();
    file.seek(SeekFrom::Start(at as u64)).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    drop(file);
    let error = verdict(&path).await.unwrap_err();
    assert!(error.to_string().contains("tables/notes.ndjson.zst"), "{error}");
}
