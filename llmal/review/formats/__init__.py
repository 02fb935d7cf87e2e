"""review.formats: the files of other labelling tools, each as what llmal hands out and takes back."""
