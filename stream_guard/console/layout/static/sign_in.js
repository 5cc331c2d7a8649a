// The address that the command prints has a token behind #, which a browser sends to nobody.
function signIn() {
  const token = decodeURIComponent(location.hash.slice(1));
  if (token) {
    history.replaceState(null, "", location.pathname);
    document.querySelector("#token").value = token;
    document.querySelector("#sign-in").requestSubmit();
  }
}

// A person may open the address where this page is open already.
addEventListener("hashchange", signIn);
signIn();
