"""Files and vector stores: uploads are read, cut into chunks and embedded; a search finds the chunks again."""
