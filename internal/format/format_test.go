package format

import (
	"encoding/json"
	"testing"
)

func TestUnknownIsKept(t *testing.T) {
	type known struct {
		Version int `json:"version"`
		Name    string
		Empty   string `json:"empty,omitzero"`
	}
	for from, want := range map[string]string{
		`{"version":2}`: `{"version":2,"Name":""}`,
		`{"version":2,"later":{"a":[1]},"empty":"","z":null}`: `{"version":2,"Name":"","later":{"a":[1]},"z":null}`,
		`[]`: `{"version":0,"Name":""}`,
	} {
		var k known
		_ = json.Unmarshal([]byte(from), &k)
		data, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Keep(data, Unknown([]byte(from), &k))
		if err != nil || string(got) != want {
			t.Errorf("%s: got %s, %v; want %s", from, got, err, want)
		}
	}
	if got, err := Keep([]byte(`{}`), map[string]json.RawMessage{"a": []byte("1")}); err != nil || string(got) != `{"a":1}` {
		t.Errorf("got %s, %v", got, err)
	}
}
