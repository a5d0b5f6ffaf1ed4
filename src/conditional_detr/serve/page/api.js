// Requests to the server. A failed one throws an Error whose message is the server's sentence.

let key = sessionStorage.getItem("key") ?? "";

async function askForKey() {
  const dialog = document.getElementById("key-dialog");
  const input = document.getElementById("key");
  await new Promise((resolve) => {
    dialog.addEventListener("close", resolve, { once: true });
    dialog.showModal();
  });
  key = input.value.trim();
  sessionStorage.setItem("key", key);
}

async function send(address, options = {}) {
  for (;;) {
    let response;
    try {
      response = await fetch(address, { ...options, headers: key ? { Authorization: `Bearer ${key}` } : {} });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("The server does not answer; it may have been stopped.");
    }
    if (response.status === 401) {
      await askForKey();
      continue;
    }
    if (response.ok) return response;
    const answer = await response.json().catch(() => null);
    throw new Error(answer?.error?.message ?? `The server answered with status ${response.status}.`);
  }
}

function form(blob, name) {
  const data = new FormData();
  data.append("image", blob, name);
  return data;
}

export async function model() {
  return (await send("/v1/model")).json();
}

export async function sample(number) {
  return (await send(`/v1/sample?number=${number}`)).blob();
}

export async function detect(blob, name, threshold, signal) {
  const address = `/v1/detect?threshold=${threshold}&top=300`;
  return (await send(address, { method: "POST", body: form(blob, name), signal })).json();
}

export async function attention(blob, name, layer, top) {
  const address = `/v1/attention?layer=${layer}&top=${top}`;
  return (await send(address, { method: "POST", body: form(blob, name) })).json();
}
