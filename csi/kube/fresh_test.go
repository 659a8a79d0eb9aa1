package kube

import (
	"context"
	"testing"
)

// Many who ask at once share one read, and none gets one that began before it asked.
func TestFresh(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	reads := 0
	f := fresh[int]{load: func(context.Context) (int, error) {
		reads++
		if reads == 1 {
			close(began)
			<-release
		}
		return reads, nil
	}}
	first := f.join(t.Context())
	<-began
	second := f.join(t.Context())
	if second == first {
		t.Fatal("joined a read that had begun")
	}
	for range 50 {
		if f.join(t.Context()) != second {
			t.Fatal("one more read than needed")
		}
	}
	close(release)
	<-first.done
	<-second.done
	if first.value != 1 || second.value != 2 {
		t.Errorf("answers %d and %d", first.value, second.value)
	}
	if got, err := f.get(t.Context()); err != nil || got != 3 {
		t.Errorf("a question of later: %d, %v", got, err)
	}
}
