module github.com/covey-platform/covey/bench

go 1.26.0
