// The gateway's API. The session is a cookie that scripts cannot read; nothing secret is kept here.

export class ApiError extends Error {
  constructor(status, code, message, hint) {
    super(hint ? `${message}; ${hint}` : message);
    this.status = status;
    this.code = code;
  }
}

async function failure(response) {
  try {
    const { error } = await response.json();
    return new ApiError(response.status, error.code, error.message, error.hint);
  } catch {
    return new ApiError(response.status, "invalid", "the gateway gave no clear answer", "");
  }
}

async function call(method, path, body) {
  const options = { method, credentials: "same-origin", headers: {} };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new ApiError(0, "closed", "the gateway cannot be reached", "see whether the node runs");
  }
  if (!response.ok) throw await failure(response);
  return response.json();
}

export const get = (path) => call("GET", path);
export const post = (path, body) => call("POST", path, body);
export const put = (path, body) => call("PUT", path, body);
export const remove = (path) => call("DELETE", path);

/** Send a file; `onProgress(share)` as it goes. fetch() cannot tell how far an upload is. */
export function upload(file, contentClass, onProgress) {
  const query = new URLSearchParams({ name: file.name, class: contentClass });
  if (file.type) query.set("mime", file.type);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/api/files?${query}`);
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) onProgress(event.loaded / event.total);
    });
    request.addEventListener("load", () => {
      const error = request.response?.error;
      if (request.status < 300) resolve(request.response);
      else reject(new ApiError(request.status, error?.code ?? "invalid", error?.message ?? "the upload failed", error?.hint));
    });
    request.addEventListener("error", () => reject(new ApiError(0, "closed", "the upload was broken off", "try again")));
    request.send(file);
  });
}

/** The plain bytes of private content: its key goes in a header, so only fetch() can ask. */
export async function privateContent(digest, key) {
  const response = await fetch(`/api/files/${digest}/content`, { headers: { "X-Swarmbridge-Key": key } });
  if (!response.ok) throw await failure(response);
  return response.blob();
}
