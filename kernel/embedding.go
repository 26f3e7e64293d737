package kernel

// EmbeddingGather copies the rows of table [vocab, d] named by ids to
// y [len(ids), d].
func EmbeddingGather(y, table []float32, ids []int32, d int) {
	for i, id := range ids {
		copy(y[i*d:i*d+d], table[int(id)*d:int(id)*d+d])
	}
}

// EmbeddingScatterAdd adds the rows of dy [len(ids), d] to the rows of
// dtable [vocab, d] named by ids, in the order of ids.
func EmbeddingScatterAdd(dtable, dy []float32, ids []int32, d int) {
	add := vector().add
	for i, id := range ids {
		row := dtable[int(id)*d : int(id)*d+d]
		add(row, row, dy[i*d:i*d+d])
	}
}
