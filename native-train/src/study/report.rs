//! What a study writes: Markdown for people, CSV for machines, SVG for papers.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::plot::Plot;
use super::table::Table;
use crate::error::{Result, TrainError};
use crate::files::write_atomically;

/// The outcome of a study.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    /// The study's name, which its files have.
    pub(crate) name: &'static str,
    /// What stands over it.
    pub(crate) title: &'static str,
    /// What was done, in Markdown.
    pub(crate) about: String,
    pub(crate) tables: Vec<Table>,
    /// The same in pictures.
    pub(crate) plots: Vec<Plot>,
}

/// The files of a report.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Written {
    pub(crate) study: &'static str,
    /// Markdown with the tables and the plots.
    pub(crate) markdown: PathBuf,
    /// A file a table.
    pub(crate) csv: Vec<PathBuf>,
    /// A file a plot.
    pub(crate) svg: Vec<PathBuf>,
}

impl Report {
    /// Writes the files into `folder`, each whole.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub(crate) fn write(&self, folder: &Path) -> Result<Written> {
        fs::create_dir_all(folder).map_err(|e| TrainError::file(folder, e))?;
        let mut text = format!("# {}\n\n{}\n", self.title, self.about.trim());
        let (mut csv, mut svg) = (Vec::new(), Vec::new());
        for plot in &self.plots {
            let name = self.file(&plot.name, "svg");
            let path = folder.join(&name);
            let drawing = plot.svg().map_err(|e| TrainError::file(&path, e))?;
            write_atomically(&path, |file| file.write_all(drawing.as_bytes()))?;
            text += &format!("\n![{}]({name})\n", plot.title);
            svg.push(path);
        }
        for table in &self.tables {
            let path = folder.join(self.file(table.name, "csv"));
            table.write_csv(&path)?;
            text += &format!("\n{}", table.markdown());
            csv.push(path);
        }
        let markdown = folder.join(self.file("", "md"));
        write_atomically(&markdown, |file| file.write_all(text.as_bytes()))?;
        Ok(Written { study: self.name, markdown, csv, svg })
    }

    fn file(&self, part: &str, extension: &str) -> String {
        match part {
            "" => format!("{}.{extension}", self.name),
            part => format!("{}-{part}.{extension}", self.name),
        }
    }
}
