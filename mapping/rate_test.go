package mapping

import "testing"

func TestRate(t *testing.T) {
	for _, test := range []struct {
		text string
		rate Rate
		back string
	}{
		{"1000/s", 1000, "1000/s"}, {"30/m", 0.5, "30/m"}, {"120/m", 2, "2/s"}, {"5/h", 5.0 / 3600, "5/h"},
		{"7", 7, "7/s"}, {"0", 0, "0/s"}, {"2.5/s", 2.5, "150/m"},
	} {
		r, err := ParseRate(test.text)
		if err != nil || r != test.rate || r.String() != test.back {
			t.Errorf("%s: %v, %v, %s, want %v, %s", test.text, float64(r), err, r, float64(test.rate), test.back)
		}
	}
	for _, text := range []string{"", "/s", "1/", "1/d", "1/s/s", "NaN", "Inf/s", "one"} {
		if r, err := ParseRate(text); err == nil {
			t.Errorf("%q is %v", text, r)
		}
	}
}
